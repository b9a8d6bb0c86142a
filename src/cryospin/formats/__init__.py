"""Files of the field: STAR tables, image stacks and maps. One module a format, reading and writing together."""
