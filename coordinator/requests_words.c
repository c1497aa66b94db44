#include "coordinator/requests_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/msg.h"

static const char *const node_verbs[] = {"pause", "resume", "fence", "clear-quarantine", "remove"};
static const char *const vm_verbs[] = {"start", "stop", "remove"};
static const char *const network_verbs[] = {"exclude", "include", "rename", "probe"};
static const char *const drain_verbs[] = {"start", "pause", "continue", "cancel", "reverse", "plan"};

#define WORD(list, verb) ((size_t)(verb) < sizeof(list) / sizeof((list)[0]) ? (list)[verb] : "?")

static void add(char *text, size_t size, const char *more)
{
	size_t used = strlen(text);

	if (used < size - 1)
		snprintf(text + used, size - used, " %s", more);
}

/* "name=value" of one field that was set. */
static void limit_word(const Drover__LimitSet *set, const char *name, char out[128])
{
	const ProtobufCFieldDescriptor *f =
		protobuf_c_message_descriptor_get_field_by_name(&drover__limit_set__descriptor, name);
	const char *at = f != NULL ? (const char *)set + f->offset : NULL;

	if (f != NULL && f->type == PROTOBUF_C_TYPE_UINT64)
		snprintf(out, 128, "%.64s=%llu", name, (unsigned long long)*(const uint64_t *)at);
	else if (f != NULL && f->type == PROTOBUF_C_TYPE_UINT32)
		snprintf(out, 128, "%.64s=%u", name, *(const uint32_t *)at);
	else if (f != NULL && f->type == PROTOBUF_C_TYPE_BOOL)
		snprintf(out, 128, "%.64s=%s", name, *(const protobuf_c_boolean *)at ? "on" : "off");
	else if (f != NULL && f->type == PROTOBUF_C_TYPE_STRING && f->label != PROTOBUF_C_LABEL_REPEATED)
		snprintf(out, 128, "%.40s=%.64s", name, *(char *const *)at);
	else
		snprintf(out, 128, "%.64s", name);
}

static char *limit_words(const Drover__LimitSet *set)
{
	char text[512];
	char one[128];

	snprintf(text, sizeof(text), "limit set%s%s%s%s", set->node[0] != '\0' ? " --node " : "", set->node,
		 set->network[0] != '\0' ? " --network " : "", set->network);
	for (size_t i = 0; i < set->n_mask; i++) {
		limit_word(set, set->mask[i], one);
		add(text, sizeof(text), one);
	}
	return msg_dup(text);
}

static char *network_words(const Drover__NetworkVerb *verb)
{
	char text[512];

	snprintf(text, sizeof(text), "network %s", WORD(network_verbs, verb->verb));
	for (size_t i = 0; i < verb->n_networks; i++)
		add(text, sizeof(text), verb->networks[i]);
	if (verb->new_name[0] != '\0')
		add(text, sizeof(text), verb->new_name);
	return msg_dup(text);
}

static char *order_words(const Drover__NetworkOrder *order)
{
	char text[512] = "network order";
	char one[128];

	for (size_t i = 0; i < order->n_ranks; i++) {
		snprintf(one, sizeof(one), "%.64s=%u", order->ranks[i]->network, order->ranks[i]->rank);
		add(text, sizeof(text), one);
	}
	return msg_dup(text);
}

static char *drain_words(const Drover__DrainVerb *verb)
{
	if (verb->node[0] != '\0')
		return msg_printf("drain %s %s%s%s", WORD(drain_verbs, verb->verb), verb->node,
				  verb->best_effort ? " --best-effort" : "",
				  verb->shutdown_unmovable ? " --shutdown-unmovable" : "");
	return msg_printf("drain %s %llu", WORD(drain_verbs, verb->verb), (unsigned long long)verb->drain);
}

void request_words(const Drover__Request *request, char **what)
{
	const Drover__Request *r = request;
	char *text;

	if (r->verb_case == DROVER__REQUEST__VERB_NODE_VERB)
		text = msg_printf("node %s %s%s%s%s", WORD(node_verbs, r->node_verb->verb),
				  r->node_verb->node, r->node_verb->drain ? " --drain" : "",
				  r->node_verb->confirmed ? " --confirmed" : "",
				  r->node_verb->force ? " --force" : "");
	else if (r->verb_case == DROVER__REQUEST__VERB_NODE_SET)
		text = msg_printf("node set %s --fence %.64s", r->node_set->node, r->node_set->fence_agent);
	else if (r->verb_case == DROVER__REQUEST__VERB_VM_ADD)
		text = msg_printf("vm add %s", r->vm_add->name);
	else if (r->verb_case == DROVER__REQUEST__VERB_VM_SET)
		text = msg_printf("vm set %s", r->vm_set->vm);
	else if (r->verb_case == DROVER__REQUEST__VERB_VM_VERB)
		text = msg_printf("vm %s %s%s%s%s", WORD(vm_verbs, r->vm_verb->verb), r->vm_verb->vm,
				  r->vm_verb->node[0] != '\0' ? " --node " : "", r->vm_verb->node,
				  r->vm_verb->force ? " --force" : "");
	else if (r->verb_case == DROVER__REQUEST__VERB_VM_MOVE)
		text = msg_printf("vm move %s%s%s", r->vm_move->vm, r->vm_move->to[0] != '\0' ? " --to " : "",
				  r->vm_move->to);
	else if (r->verb_case == DROVER__REQUEST__VERB_NETWORK_VERB)
		text = network_words(r->network_verb);
	else if (r->verb_case == DROVER__REQUEST__VERB_NETWORK_ORDER)
		text = order_words(r->network_order);
	else if (r->verb_case == DROVER__REQUEST__VERB_LIMIT_SET)
		text = limit_words(r->limit_set);
	else if (r->verb_case == DROVER__REQUEST__VERB_DRAIN_VERB)
		text = drain_words(r->drain_verb);
	else if (r->verb_case == DROVER__REQUEST__VERB_MOVE_VERB)
		text = msg_printf("move cancel %llu", (unsigned long long)r->move_verb->move);
	else
		text = msg_dup("?");
	msg_set(what, text);
	free(text);
}
