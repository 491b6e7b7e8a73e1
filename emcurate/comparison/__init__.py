"""What near-duplicates look like: pictures of groups, leaks and pairs at the border, wherever their patches lie."""
