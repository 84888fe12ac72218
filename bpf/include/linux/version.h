/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef XCONNECT_VERSION_H
#define XCONNECT_VERSION_H

/*
 * bcc's prelude only compares against it. No running kernel's number may get in: the code
 * emitted has to be the same everywhere.
 */
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE 0x050400
#endif
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))

#endif
