"""ROS 2 nodes over flowplan: thin, without planning mathematics of their own."""
