"""What is done to the stack: `table.py` lists it, each other module does it to one part."""
