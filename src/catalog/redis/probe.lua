-- Writes a test key. The script names the keys of the catalog's scripts too, so it fails when they
-- fail: while a slot moves, or while Redis refuses writes.
redis.call('SET', KEYS[#KEYS], 1, 'EX', 60)
