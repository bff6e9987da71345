"""Nets of several layers, and weights from elsewhere and back."""
