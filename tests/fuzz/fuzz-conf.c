/* /etc/drover/drover.conf, as an operator may have written it. */
#include <string.h>

#include "common/conf.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_conf conf;
	struct dr_error err = DR_ERROR_INIT;
	char *text = malloc(size + 1);
	int ret;

	FUZZ_CHECK(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	ret = conf_parse(text, "drover.conf", &conf, &err);
	FUZZ_CHECK(ret == 0 || (ret == -DR_EUSAGE && err.text[0] != '\0'));
	if (ret == 0) {
		FUZZ_CHECK(conf.n_connect <= CONF_CONNECT_MAX);
		FUZZ_CHECK(memchr(conf.name, '\0', sizeof(conf.name)) != NULL);
		FUZZ_CHECK(memchr(conf.listen, '\0', sizeof(conf.listen)) != NULL);
		FUZZ_CHECK(memchr(conf.data_dir, '\0', sizeof(conf.data_dir)) != NULL);
		FUZZ_CHECK(memchr(conf.qemu, '\0', sizeof(conf.qemu)) != NULL);
	}
	free(text);
	return 0;
}
