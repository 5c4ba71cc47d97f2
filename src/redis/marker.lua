#!lua flags=allow-oom
-- Writes a key, even at maxmemory, so that a wait for the writes of this connection covers a write.
redis.call('SET', KEYS[1], 1, 'EX', 60)
