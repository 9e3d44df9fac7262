"""What any store says about ability and loss, by the laws."""
