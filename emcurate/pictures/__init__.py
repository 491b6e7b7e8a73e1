"""Pictures for people: contact sheets of patches, and how figures are drawn and saved."""
