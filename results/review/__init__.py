"""Human review: which responses people label, on what sheet, and what they hand back."""
