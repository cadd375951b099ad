"""What looking rows of id tables up costs, in a process and over a socket."""
