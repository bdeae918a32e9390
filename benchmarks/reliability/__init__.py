"""Whether runs survive what happens to them, their folders and their disks."""
