"""What a record is: one folder per task family."""
