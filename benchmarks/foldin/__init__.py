"""New users: how well they are ranked for, and how long they take."""
