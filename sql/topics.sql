-- Topics: which queues get what is published is in enough.topic_subscription. Publishing is sending, once a queue.

-- Sessions keep the subscriptions in their own memory. Any change of the table makes them read it again.
CREATE FUNCTION enough._topic_subscription_changed() RETURNS trigger
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'enough_topic_subscription_changed';
COMMENT ON FUNCTION enough._topic_subscription_changed() IS
'Makes all sessions read enough.topic_subscription again when the transaction commits.
For the triggers of that table.';
REVOKE ALL ON FUNCTION enough._topic_subscription_changed() FROM PUBLIC;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON enough.topic_subscription
    FOR EACH ROW EXECUTE FUNCTION enough._topic_subscription_changed();
CREATE TRIGGER truncated AFTER TRUNCATE ON enough.topic_subscription
    FOR EACH STATEMENT EXECUTE FUNCTION enough._topic_subscription_changed();
-- Also for rows that replication applies.
ALTER TABLE enough.topic_subscription ENABLE ALWAYS TRIGGER changed;
ALTER TABLE enough.topic_subscription ENABLE ALWAYS TRIGGER truncated;

CREATE FUNCTION enough.topic_subscribe(topic_pattern text, queue text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_topic_subscribe';
COMMENT ON FUNCTION enough.topic_subscribe IS
'Subscribes a queue to topics: when the transaction commits, it gets what is published to those that the pattern matches.
topic_pattern: words separated by dots, of letters, digits, _ and -, at most 255 bytes; * stands for one word, # for any number of words, also for none. A queue may have several patterns, and gets each message once. The subscription follows the queue when it is renamed, and goes with it when it is dropped. It is in the table enough.topic_subscription, which pg_dump takes along.
Returns true, or false where the queue has that pattern already. It gives nobody a right on the queue: a role that publishes needs INSERT on its table, and fails without it. So needs to own the table, or to be an operator, see grant_to().
Fails with 42704 (no such queue), 22004 (NULL), 22023 (malformed pattern or name), 25006 (read-only), 40001 (the queue is changed by hand at the same time), 42501.';

CREATE FUNCTION enough.topic_unsubscribe(topic_pattern text, queue text) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_topic_unsubscribe';
COMMENT ON FUNCTION enough.topic_unsubscribe IS
'Ends the subscription of a queue by that very pattern, when the transaction commits.
Returns true, or false where there is none. What was published before stays in the queue. Needs to own the table, or to be an operator, see grant_to().
Fails with 42704 (no such queue), 22004 (NULL), 22023 (malformed pattern or name), 25006 (read-only), 42501.';

CREATE FUNCTION enough.topic_subscriptions() RETURNS TABLE (topic_pattern text, queue text, created_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
    SELECT s.topic_pattern, s.queue, s.created_at FROM enough.topic_subscription AS s ORDER BY s.topic_pattern, s.queue;
END;
COMMENT ON FUNCTION enough.topic_subscriptions IS
'Lists the subscriptions of this database.
Returns a row a pattern and queue. Every role that may use the schema may call it.';

CREATE FUNCTION enough.topic_publish(
    topic text,
    message jsonb,
    delay interval DEFAULT '0',
    priority int DEFAULT 0,
    group_key text DEFAULT NULL,
    headers jsonb DEFAULT NULL
) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE CALLED ON NULL INPUT AS 'MODULE_PATHNAME', 'enough_topic_publish';
COMMENT ON FUNCTION enough.topic_publish IS
'Sends a message to every queue that is subscribed to a topic, once each, in this transaction.
topic: words separated by dots, of letters, digits, _ and -, at most 255 bytes. The other arguments are those of queue_send. The message does not tell of its topic: put it into headers where consumers want to know it. Goes by the subscriptions that are committed when it is called, and by those of its own transaction.
Returns how many queues got it, which may be none. Needs INSERT on the table of each: where it is lacking for one, none gets the message.
Fails with 22004 (NULL), 22023 (malformed topic, out of range), 42704 (a subscribed queue has lost its table), 54000 (group key too long), 25006 (read-only), 40001 (subscriptions keep changing), 42501.';
