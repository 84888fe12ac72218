"""What the daemons of two hosts say to each other, inside the tunnels between these."""
