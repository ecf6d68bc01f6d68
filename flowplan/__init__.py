"""flowplan: from dense object flow to certified robot motion.

    scan -> Scene -> generator -> SceneMotion -> ObjectFlow -> Grasps -> Attachment -> Trajectory -> Rollout

Every arrow is a function and every noun a frozen record of numpy arrays. Importing this package loads neither
torch nor pybullet nor rclpy; each heavy package is imported by the module that needs it.
"""

__version__ = "0.1.0"
