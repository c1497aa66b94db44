#include "coordinator/spec.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/names.h"
#include "coordinator/msg.h"

static bool one_of(const char *word, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(word, *words) == 0)
			return true;
	}
	return false;
}

static int check_path(const char *path, const char *what, struct dr_error *err)
{
	if (path[0] != '/')
		return dr_error_set(err, DR_EUSAGE, "%s '%s' must be an absolute path", what, path);
	if (strlen(path) > 4000 || strchr(path, '\n') != NULL)
		return dr_error_set(err, DR_EUSAGE, "%s: the path is too long or has a line break", what);
	return 0;
}

static int check_disk(const Drover__VmDisk *disk, struct dr_error *err)
{
	static const char *const formats[] = {"", "raw", "qcow2", NULL};
	static const char *const buses[] = {"", "virtio", "scsi", "sata", "ide", NULL};
	static const char *const caches[] = {"",	   "none",   "writeback", "writethrough",
					     "directsync", "unsafe", NULL};

	if (check_path(disk->path, "disk", err) < 0)
		return -DR_EUSAGE;
	if (!one_of(disk->format, formats))
		return dr_error_set(err, DR_EUSAGE, "disk format '%s' is unknown: raw or qcow2",
				    disk->format);
	if (!one_of(disk->bus, buses))
		return dr_error_set(err, DR_EUSAGE, "disk bus '%s' is unknown: virtio, scsi or sata",
				    disk->bus);
	if (!one_of(disk->cache, caches))
		return dr_error_set(err, DR_EUSAGE,
				    "disk cache '%s' is unknown: none, writeback or directsync", disk->cache);
	return 0;
}

static int check_names(char *const *names, size_t n, const char *what, struct dr_error *err)
{
	for (size_t i = 0; i < n; i++) {
		if (names_check(names[i], what, err) < 0)
			return -DR_EUSAGE;
	}
	return 0;
}

static int check_hardware(const Drover__VmSpec *spec, struct dr_error *err)
{
	static const char *const accels[] = {"", "auto", "kvm", "tcg", NULL};
	static const char *const backings[] = {"", "anon", "shm", "hugepages", NULL};

	if (!one_of(spec->accel, accels))
		return dr_error_set(err, DR_EUSAGE, "accel '%s' is unknown: auto, kvm or tcg", spec->accel);
	if (!one_of(spec->memory_backing, backings))
		return dr_error_set(err, DR_EUSAGE, "memory backing '%s' is unknown: anon, shm or hugepages",
				    spec->memory_backing);
	if (spec->n_disks > SPEC_DISKS_MAX || spec->n_nics > SPEC_NICS_MAX)
		return dr_error_set(err, DR_EUSAGE, "at most %d disks and %d NICs", SPEC_DISKS_MAX,
				    SPEC_NICS_MAX);
	for (size_t i = 0; i < spec->n_disks; i++) {
		if (check_disk(spec->disks[i], err) < 0)
			return -DR_EUSAGE;
	}
	for (size_t i = 0; i < spec->n_nics; i++) {
		if (spec->nics[i]->bridge[0] == '\0')
			return dr_error_set(err, DR_EUSAGE, "a NIC needs bridge=NAME");
	}
	if (spec->kernel[0] != '\0' && check_path(spec->kernel, "kernel", err) < 0)
		return -DR_EUSAGE;
	if (spec->initrd[0] != '\0' && check_path(spec->initrd, "initrd", err) < 0)
		return -DR_EUSAGE;
	return 0;
}

int spec_check(const Drover__VmSpec *spec, struct dr_error *err)
{
	if (names_check(spec->name, "VM", err) < 0)
		return -DR_EUSAGE;
	if (spec->memory < SPEC_MEMORY_MIN || spec->memory > SPEC_MEMORY_MAX)
		return dr_error_set(err, DR_EUSAGE, "memory of %s must be from 1MiB to 64TiB, not %llu bytes",
				    spec->name, (unsigned long long)spec->memory);
	if (spec->cpus < 1 || spec->cpus > SPEC_CPUS_MAX)
		return dr_error_set(err, DR_EUSAGE, "cpus of %s must be from 1 to %d, not %u", spec->name,
				    SPEC_CPUS_MAX, spec->cpus);
	if (spec->sockets != 0 && spec->cores != 0 && spec->threads != 0 &&
	    (uint64_t)spec->sockets * spec->cores * spec->threads != spec->cpus)
		return dr_error_set(err, DR_EUSAGE, "sockets × cores × threads of %s must be its %u cpus",
				    spec->name, spec->cpus);
	if (spec->priority > SPEC_PRIORITY_MAX)
		return dr_error_set(err, DR_EUSAGE, "priority of %s must be from 0 to %d", spec->name,
				    SPEC_PRIORITY_MAX);
	if (check_hardware(spec, err) < 0 ||
	    check_names(spec->possible_owners, spec->n_possible_owners, "node", err) < 0 ||
	    check_names(spec->preferred_owners, spec->n_preferred_owners, "node", err) < 0 ||
	    check_names(spec->anti_affinity, spec->n_anti_affinity, "class", err) < 0)
		return -DR_EUSAGE;
	if (spec->blackout_ms > 3600000)
		return dr_error_set(err, DR_EUSAGE, "the blackout of %s must be at most 1h", spec->name);
	return 0;
}

static bool is_policy(const char *field)
{
	static const char *const policies[] = {"priority",
					       "ha",
					       "autostart",
					       "on_isolation",
					       "possible_owners",
					       "preferred_owners",
					       "anti_affinity",
					       "blackout_ms",
					       "no_move",
					       "allow_tcg_live",
					       NULL};

	return one_of(field, policies);
}

/* Swaps one field with that of a copy: both stay whole heap messages. */
static void take_field(Drover__VmSpec *spec, const Drover__VmSpec *from,
		       const ProtobufCFieldDescriptor *field)
{
	Drover__VmSpec *copy = msg_clone(from);
	uint8_t hold[64];
	size_t size = field->label == PROTOBUF_C_LABEL_REPEATED ? sizeof(void *)
		      : field->type == PROTOBUF_C_TYPE_STRING	? sizeof(char *)
		      : field->type == PROTOBUF_C_TYPE_BYTES	? sizeof(ProtobufCBinaryData)
		      : field->type == PROTOBUF_C_TYPE_UINT64	? sizeof(uint64_t)
		      : field->type == PROTOBUF_C_TYPE_MESSAGE	? sizeof(void *)
								: sizeof(uint32_t);
	uint8_t *mine = (uint8_t *)spec + field->offset;
	uint8_t *theirs = (uint8_t *)copy + field->offset;

	memcpy(hold, mine, size);
	memcpy(mine, theirs, size);
	memcpy(theirs, hold, size);
	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		mine = (uint8_t *)spec + field->quantifier_offset;
		theirs = (uint8_t *)copy + field->quantifier_offset;
		memcpy(hold, mine, sizeof(size_t));
		memcpy(mine, theirs, sizeof(size_t));
		memcpy(theirs, hold, sizeof(size_t));
	}
	drover__vm_spec__free_unpacked(copy, NULL);
}

int spec_merge(Drover__VmSpec *spec, const Drover__VmSpec *from, char *const *mask, size_t n_mask,
	       bool *hardware, struct dr_error *err)
{
	*hardware = false;
	if (n_mask == 0)
		return dr_error_set(err, DR_EUSAGE, "nothing to set");
	for (size_t i = 0; i < n_mask; i++) {
		const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
			&drover__vm_spec__descriptor, mask[i]);

		if (field == NULL)
			return dr_error_set(err, DR_EUSAGE, "a VM has no '%s'", mask[i]);
		if (strcmp(mask[i], "name") == 0 || strcmp(mask[i], "uuid") == 0)
			return dr_error_set(err, DR_EUSAGE, "the %s of a VM can't be changed", mask[i]);
		if (field->type == PROTOBUF_C_TYPE_BOOL) {
			/* protobuf-c's booleans are ints of the compiler's choice */
			protobuf_c_boolean value;

			memcpy(&value, (const uint8_t *)from + field->offset, sizeof(value));
			memcpy((uint8_t *)spec + field->offset, &value, sizeof(value));
		} else {
			take_field(spec, from, field);
		}
		if (!is_policy(mask[i]))
			*hardware = true;
	}
	return 0;
}
