"""What the columns are, and which id each value has."""
