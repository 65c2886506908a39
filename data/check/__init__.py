"""What is wrong with preference data: errors row by row, warnings over the whole, and the repair of both."""
