/*
 * Functions that do nothing: what a call costs at the least.
 *
 * Each stands for one function of the extension. It takes the same arguments, ignores them, and returns a value of the
 * same type and size. Values are made once in a backend's life, because the executor's own caches last for one
 * execution of a prepared statement only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(noop_boolean);
PG_FUNCTION_INFO_V1(noop_jsonb);
PG_FUNCTION_INFO_V1(noop_bytea);
PG_FUNCTION_INFO_V1(noop_bigint);
PG_FUNCTION_INFO_V1(noop_limit);

/* cache_set */
Datum
noop_boolean(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

/* semaphore_acquire */
Datum
noop_bigint(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(INT64CONST(849123456789012));
}

/* What a cache has to do at the least: a copy of what is kept. */
static Datum
copy_of(struct varlena *kept)
{
	struct varlena *copy = palloc(VARSIZE(kept));

	memcpy(copy, kept, VARSIZE(kept));
	PG_RETURN_POINTER(copy);
}

/* VALUE, which comes from the compiler's command line, as the type's input function makes it. */
static struct varlena *
value(PGFunction input)
{
	struct varlena *made = (struct varlena *) DatumGetPointer(DirectFunctionCall1(input, CStringGetDatum(VALUE)));
	struct varlena *kept = MemoryContextAlloc(TopMemoryContext, VARSIZE(made));

	memcpy(kept, made, VARSIZE(made));
	return kept;
}

/* cache_get */
Datum
noop_jsonb(PG_FUNCTION_ARGS)
{
	static struct varlena *kept = NULL;

	if (kept == NULL)
		kept = value(jsonb_in);
	return copy_of(kept);
}

/* cache_get_bytes */
Datum
noop_bytea(PG_FUNCTION_ARGS)
{
	static struct varlena *kept = NULL;

	if (kept == NULL)
		kept = value(byteain);
	return copy_of(kept);
}

/* rate_limit: (allowed, remaining, retry_after, reset_after), with numbers that take as long to print as real ones */
Datum
noop_limit(PG_FUNCTION_ARGS)
{
	static TupleDesc row = NULL;
	static Interval zero = {0, 0, 0};
	static Interval later = {INT64CONST(119123456), 0, 0};
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	if (row == NULL)
	{
		TupleDesc	desc;
		MemoryContext old;

		if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "a function that returns a row was expected");
		if (desc->natts != 4)
			elog(ERROR, "a row of 4 columns was expected, not of %d", desc->natts);
		old = MemoryContextSwitchTo(TopMemoryContext);
		row = BlessTupleDesc(CreateTupleDescCopy(desc));
		MemoryContextSwitchTo(old);
	}
	values[0] = BoolGetDatum(true);
	values[1] = Int64GetDatum(999990);
	values[2] = IntervalPGetDatum(&zero);
	values[3] = IntervalPGetDatum(&later);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(row, values, nulls)));
}
