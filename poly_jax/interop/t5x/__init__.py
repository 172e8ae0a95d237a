"""The plug-in for t5x's own train.py, eval.py and infer.py; gin/t5x binds it. Only this room imports t5x."""
