"""Worth of a certificate: random problems, and an oracle that replays every returned plan."""
