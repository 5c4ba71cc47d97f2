-- Writes a key of its own beside those that the catalog's scripts name, so that it fails where they
-- fail: while a slot moves, or while Redis takes no writes.
redis.call('SET', KEYS[#KEYS], 1, 'EX', 60)
