#!lua flags=allow-oom
-- Writes a key in any case, so that a wait for this connection's writes has one to wait for.
redis.call('SET', KEYS[1], 1, 'EX', 60)
