const PAGE = 1000
const NEWEST = Number.MAX_SAFE_INTEGER

// Each minute: delete the files of infected attachments through Directus, bytes and thumbnails: of the newest page, and of one older.
export default ({ schedule }, { services, database, getSchema, logger }) => {
  let older = NEWEST

  // Look at one page of infected attachments with smaller ids, and return where the next begins.
  const remove = async (before) => {
    const infected = database('worker_scans').where({ verdict: 'infected' }).whereNot({ quarantine: 'pending' })
    const rows = await infected.where('attachment_id', '<', before).orderBy('attachment_id', 'desc').limit(PAGE).select('attachment_id', 'file_url')
    const ids = rows.map((row) => row.file_url.replace(/^\//, ''))
    if (ids.length === 0) return NEWEST
    const files = new services.FilesService({ schema: await getSchema() })
    for (const { id, filename_disk } of await files.readByQuery({ filter: { id: { _in: ids } }, fields: ['id', 'filename_disk'], limit: -1 })) {
      // Directus deletes all bytes whose name begins as this one does.
      if (filename_disk.replace(/\.[^/\\]*$/, '') !== id) {
        logger.error(`chat-infected: the infected file ${id} is kept as ${JSON.stringify(filename_disk)}, not under its id: delete it by hand`)
        continue
      }
      try {
        await files.deleteOne(id)
        logger.warn(`chat-infected: the file ${id} of an infected attachment was deleted`)
      } catch (error) {
        logger.error(error, `chat-infected: the infected file ${id} was not deleted; a later minute tries again`)
      }
    }
    return rows.length < PAGE ? NEWEST : rows.at(-1).attachment_id
  }

  schedule('* * * * *', async () => {
    try {
      older = await remove(Math.min(older, await remove(NEWEST)))
    } catch (error) {
      logger.error(error, 'chat-infected: infected files were not looked for; the next minute tries again')
    }
  })
}
