"""What sources look like: containers of rows, and the forms of a row."""
