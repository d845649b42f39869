"""How well the methods find what they are asked for."""
