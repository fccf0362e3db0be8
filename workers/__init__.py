"""The carriers: rounds look at an agent's queue, lanes claim what is due and submit it, outcomes go back."""
