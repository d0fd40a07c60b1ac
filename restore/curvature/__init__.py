"""Estimates of curvature, and products with their inverse."""
