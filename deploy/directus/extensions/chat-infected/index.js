// Each minute: delete the files of infected attachments through Directus, bytes and thumbnails.
export default ({ schedule }, { services, database, getSchema, logger }) => {
  schedule('* * * * *', async () => {
    try {
      const infected = database('worker_scans').where({ verdict: 'infected' }).whereNot({ quarantine: 'pending' })
      const urls = await infected.orderBy('attachment_id', 'desc').limit(1000).pluck('file_url')
      const ids = urls.map((url) => url.replace(/^\//, ''))
      if (ids.length === 0) return
      const files = new services.FilesService({ schema: await getSchema() })
      const there = await files.readByQuery({ filter: { id: { _in: ids } }, fields: ['id'], limit: -1 })
      if (there.length > 0) await files.deleteMany(there.map((file) => file.id))
      for (const { id } of there) logger.warn(`chat-infected: the file ${id} of an infected attachment was deleted`)
    } catch (error) {
      logger.error(error, 'chat-infected: infected files were not deleted; the next minute tries again')
    }
  })
}
