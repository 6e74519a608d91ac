"""What `minidiff train NAME` trains, one file each."""
