-- Returns the totals of a partition, and its numbers of pending and of retired uploads.
return {
  redis.call('HGETALL', STATS),
  redis.call('ZCARD', PENDING),
  redis.call('ZCARD', RETIRED),
}
