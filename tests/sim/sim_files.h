/* Included before everything else where coordinator/logdb.c and recover.c are compiled for the simulator:
 * what they do to files themselves (log.mark and its like) goes to the simulated disk, too. */
#ifndef DROVER_TESTS_SIM_FILES_H
#define DROVER_TESTS_SIM_FILES_H

#include "sim_door.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int sim_open(const char *path, int flags, ...);
int sim_close(int fd);
ssize_t sim_pread(int fd, void *buf, size_t size, off_t at);
ssize_t sim_pwrite(int fd, const void *buf, size_t size, off_t at);
ssize_t sim_read(int fd, void *buf, size_t size);
ssize_t sim_write(int fd, const void *buf, size_t size);
int sim_fdatasync(int fd);
int sim_fallocate(int fd, off_t at, off_t size);
int sim_rename(const char *from, const char *to);
int sim_unlink(const char *path);

#ifndef SIM_FILES_BODY
#define open		sim_open
#define close		sim_close
#define pread		sim_pread
#define pwrite		sim_pwrite
#define read		sim_read
#define write		sim_write
#define rename		sim_rename
#define posix_fallocate sim_fallocate
#define fdatasync	sim_fdatasync
#define fsync		sim_fdatasync
#define unlink		sim_unlink
#endif

#endif
