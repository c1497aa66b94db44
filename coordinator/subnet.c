#include "coordinator/subnet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

bool subnet_of(const char *address, uint32_t prefix, char out[SUBNET_TEXT])
{
	uint8_t ip[16];
	char text[INET6_ADDRSTRLEN];
	int family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
	uint32_t bits = family == AF_INET6 ? 128 : 32;

	if (inet_pton(family, address, ip) != 1 || prefix == 0 || prefix >= bits)
		return false;
	if (family == AF_INET && (ip[0] == 127 || (ip[0] == 169 && ip[1] == 254)))
		return false;
	if (family == AF_INET6 && (ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80)))
		return false;
	for (uint32_t bit = prefix; bit < bits; bit++)
		ip[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
	if (inet_ntop(family, ip, text, sizeof(text)) == NULL)
		return false;
	snprintf(out, SUBNET_TEXT, "%s/%u", text, prefix);
	return true;
}

char *subnet_name(const char *subnet, char out[SUBNET_TEXT])
{
	/* Names may not begin with or contain what addresses have: "::" -> "_". */
	size_t i = 0;

	if (subnet[0] == ':')
		out[i++] = '0';
	for (; *subnet != '\0' && i < SUBNET_TEXT - 1; subnet++)
		out[i++] = *subnet == '/' ? '-' : *subnet == ':' ? '_' : *subnet;
	out[i] = '\0';
	return out;
}
