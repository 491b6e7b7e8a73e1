"""Running the stages one after another: the flags they are handed, the steps, what would come of them, what came."""
