/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef XCONNECT_KCONFIG_H
#define XCONNECT_KCONFIG_H

/* bcc refuses to compile without it. */
#define CONFIG_BPF_SYSCALL 1

#endif
