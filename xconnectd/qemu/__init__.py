"""What guests of virtual machines see of their links' carrier, set by QEMU's monitors."""
