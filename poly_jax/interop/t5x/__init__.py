"""The plug-in for t5x's train.py, eval.py and infer.py, bound by gin/t5x. No other package imports t5x."""
