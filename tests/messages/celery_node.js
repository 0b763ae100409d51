// What celery_node.jsonl was taken from Redis after. See samples.py.
const celery = require('celery-node')

const url = process.argv[2]
celery.createClient(url, url, 'housekeeping').createTask('tasks.typing_indicators.expire').applyAsync([])
const attachments = celery.createClient(url, url, 'attachments')
attachments.createTask('tasks.attachments.scan').applyAsync([42])
attachments.sendTask('tasks.attachments.scan', [], { attachment_id: 42 })
setTimeout(() => process.exit(0), 1500)
