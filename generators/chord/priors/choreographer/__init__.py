"""The choreographer: a small rectified-flow video transformer that runs on a laptop, and the scenes
it learns from."""
