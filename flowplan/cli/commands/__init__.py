"""The commands: a module each, a record for every command line, its fields the options."""
