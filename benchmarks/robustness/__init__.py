"""What the user of the engine lives through when something goes wrong."""
