"""What scripts/bench is made of. Standard library only; plots.py alone needs matplotlib, and runs by itself."""
