"""Where bytes are kept: local disks, S3, and other Zarr stores."""
