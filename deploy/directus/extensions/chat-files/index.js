// GET /chat-files/ID: the file of attachment ID, for who may read its row, once a scan has called this very file safe.
export default {
  id: 'chat-files',
  handler: (router, { services, database, getSchema }) => {
    router.get('/:id', async (request, response, next) => {
      try {
        const schema = await getSchema()
        const rows = new services.ItemsService('message_attachments', { schema, accountability: request.accountability })
        const row = await rows.readOne(request.params.id)
        // A client may have written the flags, and another file's id after the scan.
        const scans = database('worker_scans').where({ attachment_id: row.id }).whereIn('verdict', ['clean', 'released'])
        const scanned = await scans.first('file_url')
        if (!(row.scanned_for_virus && row.is_safe && scanned?.file_url === row.file_url)) {
          return response.status(403).json({ errors: [{ message: 'The file was not scanned yet, or is not safe.' }] })
        }
        const assets = new services.AssetsService({ schema })
        const { stream, file } = await assets.getAsset(row.file_url.replace(/^\//, ''))
        // Under any other name lie another file's bytes, which nobody scanned for this one.
        if (file.filename_disk.replace(/\.[^/\\]*$/, '') !== file.id) {
          stream.destroy()
          return response.status(403).json({ errors: [{ message: 'The file is not kept under its own name.' }] })
        }
        // What a browser takes for a page would run as one of this site's.
        response.attachment(file.filename_download)
        // No copy outlives a verdict that signatures of tomorrow change.
        response.set({ 'Cache-Control': 'no-store', 'Content-Type': 'application/octet-stream', 'X-Content-Type-Options': 'nosniff' })
        stream.on('error', next).pipe(response)
      } catch (error) {
        next(error)
      }
    })
  },
}
