"""Files: records as .npz, animated glTF, instructions as JSON, grasps of other libraries."""
