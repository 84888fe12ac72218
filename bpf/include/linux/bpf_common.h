/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Empty on purpose, see README.md. */
