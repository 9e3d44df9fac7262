"""Is ability a function of the pre-training loss, and which thresholds are real?"""
