"""The commands and their options, declared by what they are about. Each imports what it does when it is run."""
