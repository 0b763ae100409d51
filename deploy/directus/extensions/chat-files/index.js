// GET /chat-files/ID: the file of attachment ID, for who may read its row, once a scan has called it safe.
export default {
  id: 'chat-files',
  handler: (router, { services, getSchema }) => {
    router.get('/:id', async (request, response, next) => {
      try {
        const schema = await getSchema()
        const rows = new services.ItemsService('message_attachments', { schema, accountability: request.accountability })
        const row = await rows.readOne(request.params.id)
        if (!(row.scanned_for_virus && row.is_safe)) {
          return response.status(403).json({ errors: [{ message: 'The file was not scanned yet, or is not safe.' }] })
        }
        const assets = new services.AssetsService({ schema })
        const { stream, file } = await assets.getAsset(row.file_url.replace(/^\//, ''))
        // What a browser takes for a page would run as one of this site's.
        response.attachment(file.filename_download)
        response.set({ 'Content-Type': 'application/octet-stream', 'X-Content-Type-Options': 'nosniff' })
        stream.on('error', next).pipe(response)
      } catch (error) {
        next(error)
      }
    })
  },
}
